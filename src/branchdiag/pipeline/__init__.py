"""All durable work, done once: inputs, fingerprints, owed units, checkpoints, progress, signals."""

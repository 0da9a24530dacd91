"""Training a student on its own rollouts under a privileged teacher.

`objectives` say what one token costs and how tokens are weighed, `accumulation` puts a global batch
together from micro-batches, `fused_loss` computes the loss and its gradient from hidden states.
Nothing is imported here: the command line reads names without loading torch.
"""

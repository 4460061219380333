"""The flow-matching transformer over structured latents: network, sampler, palette, condition."""

"""FED-GRPO, pre-training and evaluation."""

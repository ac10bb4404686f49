"""Attacks: each makes another subject of one, the same way for target, reference and unlearned model."""

"""A bench for LLM unlearning with low-rank adapters: LoKU complete, and room for the next method."""

__version__ = "0.1.0"

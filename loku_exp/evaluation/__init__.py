"""The evaluation stage: a language model for lm-eval, tasks, suites and aggregates."""

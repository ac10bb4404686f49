"""Initialisations of a low-rank adapter.

An init is a generator function over layers. It names what it needs: ``layers`` (always), callbacks that
measure on the forget and retain set (``fisher``, ``moments`` or ``variance``, see `interface`), and its
knobs. For each layer it yields the factors A and B; the base weight becomes ``W - scaling * B @ A``, so
that the model's function is unchanged, and no init needs to know how adapters are attached or saved.
"""

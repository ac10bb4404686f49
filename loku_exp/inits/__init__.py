"""Initialisations of a low-rank adapter.

An init is a generator function over layers. It names what it needs: ``layers`` (always), ``fisher``
(a callback that measures importance on the forget and retain set), and its knobs. For each layer it
yields the factors A and B; the base weight becomes ``W - scaling * B @ A``, so that the model's
function is unchanged, and no init needs to know how adapters are attached or saved.
"""

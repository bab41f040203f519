"""Mutated frames through every venue's decoder, beside a second decoder that is slow and plain.

``python -m engine.fuzzing --for 60``: :mod:`~engine.fuzzing.samples` are the frames to begin with,
:mod:`~engine.fuzzing.mutate` breaks them, :mod:`~engine.fuzzing.reference` says what may be made of the result,
and :mod:`~engine.fuzzing.run` compares.
"""

"""Connectors: how the engine speaks to venues.

``base`` names the parts that every venue's folder implements; ``registry`` makes a connector by its venue's
id. The framework beside them knows no venue: ``rest`` and ``websocket`` (with ``reconnecting``) move bytes,
``time_sync`` follows a venue's clock, ``throttler`` its limits, ``feed`` turns frames into books, ``errors``
says what is known after a failure.
"""

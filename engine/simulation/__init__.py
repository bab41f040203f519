"""The whole engine under simulation: seeded runs with crashes, partitions, delays and lies from the venue.

Each run is one engine with its strategies on two venues in a box, in this process and on virtual time; everything that
goes wrong in it comes from its seed. At the end, when all is quiet, the engine's journals are compared with the venues'
ledgers.
"""

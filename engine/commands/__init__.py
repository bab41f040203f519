"""The commands of ``engine``, a module for each group of them.

A module's ``register`` adds its commands to the parser and imports nothing heavy; what a command needs is
imported when it runs, so that ``engine --help`` and ``engine status`` answer at once.
"""

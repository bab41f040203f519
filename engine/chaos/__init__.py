"""A real engine under chaos: its processes killed, paused and lied to at random, and its books compared at the end."""

"""Orders of an account: the pure core that follows each one, its journal, a strategy's checkpoints."""

"""Orders of an account: trading rules, the pure core that follows every order, its journal, a strategy's checkpoints."""

"""The Binance spot front end: its REST, stream and WebSocket API protocols over a venue."""

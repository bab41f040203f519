"""Who asks an exchange actor and reads its events, in tests of it."""

from engine.connectors.errors import TransportError

NAME = "exchange.box.main"
DOWN = TransportError("no route", sent=False)


class Client:
    """Somebody who asks the exchange actor and reads its events."""

    def __init__(self, bus):
        self.bus = bus
        self.events = []
        self.balances = {}
        bus.subscribe(NAME, "orders", lambda event, number: self.events.append(event))
        bus.subscribe(NAME, "balances", lambda event, number: self.balances.update(event.balances))

    async def ask(self, message, timeout=3.0):
        return await self.bus.request(NAME, message, timeout=timeout)

    def kinds(self, client_order_id="e-1"):
        return [event.kind for event in self.events if event.order.client_order_id == client_order_id]


async def client(world, name="strategy.maker"):
    return Client(await world.bus(name))

"""`dramatiq bench.rivals.dramatiq_app`: the worker's program."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.rivals import deeds

broker = RedisBroker(url=deeds.url())
dramatiq.set_broker(broker)
actors = [dramatiq.actor(deed, max_retries=0) for deed in deeds.ALL]

"""Processes compare what they run within a time; over a store in place of `jax.distributed`'s."""

import json
import time

import pytest

from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.addresses import HostError
from mplug2_jax.parallel.watch import Watch


class Store(dict):
    """Values by key; one that is not there is waited for, and then the time is up."""

    key_value_set = dict.__setitem__

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self:
            time.sleep(milliseconds / 1000)
            raise RuntimeError("DEADLINE_EXCEEDED: GetKeyValue() timed out")
        return self[key]


@pytest.fixture
def store(monkeypatch):
    """The store of a run of two processes; this one is process 0."""
    watch = object.__new__(Watch)  # without the threads of a run
    watch.process, watch.count, watch._rounds = 0, 2, 0
    watch._hosts, watch._store = ["node0", "node1"], Store()
    monkeypatch.setattr(hosts, "_watch", watch)
    monkeypatch.setattr(hosts, "_patience", 1.0)
    return watch._store


def own_facts(store):
    """What this process says of itself."""
    with pytest.raises(HostError):
        hosts.agree({"config": {"seed": 1}})
    return json.loads(store.pop("facts-1/0"))


def test_a_process_that_does_not_come_is_named_in_time(store):
    began = time.monotonic()
    with pytest.raises(HostError, match=r"process 1 \(node1\) has not said its facts in 1 s"):
        hosts.agree({"config": {"seed": 1}})
    assert time.monotonic() - began < 20


def test_equal_ones_go_on_and_unequal_ones_are_named(store):
    facts = own_facts(store)
    store["facts-2/1"] = json.dumps(facts)
    hosts.agree({"config": {"seed": 1}})
    store["facts-3/1"] = json.dumps(facts | {"config.seed": 2})
    with pytest.raises(HostError, match="config.seed is 2 on process 1 .node1., but 1 on process"):
        hosts.agree({"config": {"seed": 1}})
    store["facts-4/1"] = json.dumps(facts)
    with pytest.raises(HostError, match="code.train.py is None on process 1"):
        hosts.agree({"config": {"seed": 1}, "code": {"train.py": "1a"}})

"""A sidecar, asked by a client in another language, made from tables and not from our proto files.

Each kind is used through every method of both its services; what comes back must be where the tables
say. What the kinds do in every case is tested beside the runtime; here it is what is on the wire.
Run by tests/wire/run, which says where the program is (ATOMIX_RUNTIME_PROGRAM).
"""

import os
import socket
import subprocess
import threading
import unittest
from pathlib import Path

import grpc
from schema import Client, Schema, connect

SCHEMA = Schema(Path(__file__).parent / "api.txt")
CALLED = set()
KINDS = {
    "counter": ("Counter", "Counters"),
    "countermap": ("CounterMap", "CounterMaps"),
    "election": ("LeaderElection", "LeaderElections"),
    "indexedmap": ("IndexedMap", "IndexedMaps"),
    "list": ("List", "Lists"),
    "lock": ("Lock", "Locks"),
    "map": ("Map", "Maps"),
    "multimap": ("MultiMap", "MultiMaps"),
    "set": ("Set", "Sets"),
    "topic": ("Topic", "Topics"),
    "value": ("Value", "Values"),
}
STORE = {"namespace": "team", "name": "memory"}
CODE = grpc.StatusCode


class Sidecar:
    """A runtime's process with one memory store that serves every kind."""

    def __init__(self):
        control, application, admin = free_addresses(3)
        self.application = application
        program = os.environ["ATOMIX_RUNTIME_PROGRAM"]
        ports = [f"--control-addr={control}", f"--app-addr={application}", f"--admin-addr={admin}"]
        self._process = subprocess.Popen([program, *ports], env={"RUST_LOG": "error"})
        channel = connect(control)
        try:
            grpc.channel_ready_future(channel).result(timeout=30)
            runtime = Client(SCHEMA, channel, "atomix.runtime.v1.Runtime", CALLED)
            runtime.Connect(store_id=STORE, driver_id={"name": "memory"}, config=b"{}")
            runtime.Configure(store_id=STORE, config=b"{}")
            runtime.Program(routes=[{"store_id": STORE, "services": [{"name": "*"}]}])
        except BaseException:
            self._process.kill()
            raise
        self._control, self._runtime = channel, runtime

    def stop(self):
        try:
            self._runtime.Disconnect(store_id=STORE)
            self._control.close()
        finally:
            self._process.terminate()
            self._process.wait(timeout=30)


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ["127.0.0.1:%d" % one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def setUpModule():
    global SIDECAR
    SIDECAR = Sidecar()


def tearDownModule():
    SIDECAR.stop()
    left = sorted(set(SCHEMA.methods) - CALLED)
    # Whoever asks for single tests calls less.
    if left and "ATOMIX_WIRE_SOME" not in os.environ:
        raise AssertionError("not called by any test: " + ", ".join(left))


class Primitive:
    """One primitive, created and closed by both of its services; `self.one` operates on it."""

    kind: str

    def setUp(self):
        self.primitive = {"name": self.id().rpartition(".")[2]}
        self.one = self.another()
        self.administration = self.client(KINDS[self.kind][1], connect(SIDECAR.application))
        self.administration.Create(id=self.primitive, tags=["of-a-test"])
        self.one.Create(id=self.primitive)

    def tearDown(self):
        self.one.Close(id=self.primitive)
        self.administration.Close(id=self.primitive)
        self.one.close()
        self.administration.close()

    def client(self, service, channel):
        return Client(SCHEMA, channel, f"atomix.runtime.{self.kind}.v1.{service}", CALLED)

    def another(self):
        """A client with a connection of its own: another owner of locks and candidacies."""
        return self.client(KINDS[self.kind][0], connect(SIDECAR.application))

    def ask(self, method, client=None, **fields):
        """The answer; of a stream, what tells one message after the other."""
        return getattr(client or self.one, method)(id=self.primitive, **fields)

    def assert_refused(self, code, method, client=None, **fields):
        with self.assertRaises(grpc.RpcError) as raised:
            self.ask(method, client, **fields)
        self.assertEqual(raised.exception.code(), code, raised.exception.details())


def told(stream, count):
    """The next events of a stream: which, and the message that tells of it."""
    events = []
    for _ in range(count):
        event = next(stream).event
        which = event.WhichOneof("event")
        events.append((which, getattr(event, which)))
    return events


class Counter(Primitive, unittest.TestCase):
    kind = "counter"

    def test_counter(self):
        self.assertEqual(self.ask("Get").value, 0)
        self.assertEqual(self.ask("Set", value=-40).value, -40)
        self.assertEqual(self.ask("Increment", delta=50).value, 10)
        self.assertEqual(self.ask("Decrement", delta=3).value, 7)
        self.assertEqual(self.ask("Update", check=7, update=2**63 - 1).value, 2**63 - 1)
        self.assert_refused(CODE.ABORTED, "Update", check=7, update=1)
        self.assert_refused(CODE.OUT_OF_RANGE, "Increment", delta=1)
        self.assertEqual(self.ask("Get").value, 2**63 - 1)


class CounterMap(Primitive, unittest.TestCase):
    kind = "countermap"

    def test_countermap(self):
        events = self.ask("Events", key="a")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        self.assertEqual(self.ask("Set", key="a", value=-5).prev_value, 0)
        self.assertEqual(self.ask("Increment", key="a", delta=9).prev_value, -5)
        self.assertEqual(self.ask("Decrement", key="a", delta=1).prev_value, 4)
        self.assertEqual(self.ask("Update", key="a", value=8, prev_value=3).prev_value, 3)
        self.assert_refused(CODE.ABORTED, "Update", key="a", value=1, prev_value=3)
        self.ask("Insert", key="b", value=6)
        self.assert_refused(CODE.ALREADY_EXISTS, "Insert", key="b", value=6)
        self.assertEqual(self.ask("Get", key="a").value, 8)
        self.assertEqual(self.ask("Size").size, 2)
        entries = {told.entry.key: told.entry.value for told in self.ask("Entries")}
        self.assertEqual(entries, {"a": 8, "b": 6})
        self.assertEqual(self.ask("Remove", key="a", prev_value=8).value, 8)
        seen = [(which, event.value) for which, event in told(events, 5)]
        expected = [("inserted", -5), ("updated", 4), ("updated", 3), ("updated", 8), ("removed", 8)]
        self.assertEqual(seen, expected)
        self.ask("Clear")
        self.assert_refused(CODE.NOT_FOUND, "Get", key="b")

    def test_locks_of_a_countermap(self):
        assert_locks(self)


def assert_locks(test):
    """Locks of keys: of one connection, and free when it says so."""
    other = test.another()
    at_once = {"seconds": 0, "nanos": 0}
    test.ask("Lock", keys=["x", "y"], timeout=at_once)
    test.assert_refused(CODE.ABORTED, "Lock", other, keys=["y", "z"], timeout={"nanos": 50_000_000})
    test.assert_refused(CODE.ABORTED, "Unlock", other, keys=["x"])
    test.ask("Unlock", keys=["x", "y"])
    test.ask("Lock", other, keys=["y", "z"], timeout=at_once)
    other.close()


class Election(Primitive, unittest.TestCase):
    kind = "election"

    def line(self, answer):
        return answer.term.term, [answer.term.leader, *answer.term.candidates]

    def test_election(self):
        watch = self.ask("Watch")
        self.assertEqual(self.line(next(watch)), (0, [""]))
        first, line = self.line(self.ask("Enter", candidate="ann"))
        self.assertEqual(line, ["ann"])
        for name in ["bob", "cyd", "dan"]:
            self.ask("Enter", candidate=name)
        promoted = self.line(self.ask("Promote", candidate="dan"))
        self.assertEqual(promoted, (first, ["ann", "bob", "dan", "cyd"]))
        second, line = self.line(self.ask("Anoint", candidate="cyd"))
        self.assertEqual((second > first, line), (True, ["cyd", "ann", "bob", "dan"]))
        third, line = self.line(self.ask("Demote", candidate="cyd"))
        self.assertEqual((third > second, line), (True, ["ann", "bob", "dan", "cyd"]))
        self.assertEqual(self.line(self.ask("Evict", candidate="bob"))[1], ["ann", "dan", "cyd"])
        fourth, line = self.line(self.ask("Withdraw", candidate="ann"))
        self.assertEqual((fourth > third, line), (True, ["dan", "cyd"]))
        self.assertEqual(self.line(self.ask("GetTerm")), (fourth, ["dan", "cyd"]))
        seen = [self.line(next(watch))[1][0] for _ in range(9)]
        self.assertEqual(seen, ["ann", "ann", "ann", "ann", "ann", "cyd", "ann", "ann", "dan"])


class IndexedMap(Primitive, unittest.TestCase):
    kind = "indexedmap"

    def test_indexedmap(self):
        events = self.ask("Events")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        a, b, c = (self.ask("Append", key=key, value=key.encode()).entry for key in "abc")
        self.assertTrue(0 < a.index < b.index < c.index)
        self.assertEqual((b.key, b.value.value), ("b", b"b"))
        self.assertEqual(self.ask("Get", key="b").entry, b)
        self.assertEqual(self.ask("Get", index=b.index).entry, b)
        self.assertEqual(self.ask("FirstEntry").entry, a)
        self.assertEqual(self.ask("LastEntry").entry, c)
        self.assertEqual(self.ask("PrevEntry", index=b.index).entry, a)
        self.assertEqual(self.ask("NextEntry", index=b.index).entry, c)
        later = self.ask("Update", key="b", value=b"B", prev_version=b.value.version).entry
        self.assertEqual((later.index, later.value.value), (b.index, b"B"))
        self.assert_refused(CODE.ABORTED, "Remove", index=b.index, prev_version=b.value.version)
        self.assertEqual([one.entry for one in self.ask("Entries")], [a, later, c])
        self.assertEqual(self.ask("Remove", key="b").entry, later)
        self.assertEqual(self.ask("Size").size, 2)
        self.ask("Append", key="brief", value=b"x", ttl={"nanos": 100_000_000})
        seen = told(events, 7)
        self.assertEqual(
            [which for which, _ in seen],
            ["inserted", "inserted", "inserted", "updated", "removed", "inserted", "removed"],
        )
        updated = seen[3][1]
        self.assertEqual((updated.prev_value, updated.value), (b.value, later.value))
        self.assertEqual((seen[4][1].expired, seen[6][1].expired), (False, True))
        self.ask("Clear")
        self.assert_refused(CODE.NOT_FOUND, "FirstEntry")


class List(Primitive, unittest.TestCase):
    kind = "list"

    def test_list(self):
        for value in [b"a", b"c"]:
            self.ask("Append", value={"value": value})
        self.assertEqual(self.ask("Insert", index=1, value={"value": b"b"}).item.index, 1)
        events = self.ask("Events", replay=True)
        self.assertIsNone(next(events).event.WhichOneof("event"))
        self.assertEqual(self.ask("Get", index=1).item.value.value, b"b")
        self.assertEqual(self.ask("Set", index=1, value={"value": b"B"}).item.value.value, b"B")
        self.assert_refused(CODE.OUT_OF_RANGE, "Get", index=3)
        items = [(one.item.index, one.item.value.value) for one in self.ask("Items")]
        self.assertEqual(items, [(0, b"a"), (1, b"B"), (2, b"c")])
        self.assertEqual(self.ask("Remove", index=0).item.value.value, b"a")
        seen = [(which, event.value.value) for which, event in told(events, 5)]
        self.assertEqual([value for _, value in seen], [b"a", b"b", b"c", b"B", b"a"])
        self.assertEqual([which for which, _ in seen[2:]], ["appended", "updated", "removed"])
        self.assertEqual(self.ask("Size").size, 2)
        self.ask("Clear")
        self.assertEqual(self.ask("Size").size, 0)


class Lock(Primitive, unittest.TestCase):
    kind = "lock"

    def test_lock(self):
        self.assert_refused(CODE.NOT_FOUND, "GetLock")
        first = self.ask("Lock").version
        self.assertEqual(self.ask("GetLock").version, first)
        other = self.another()
        self.assert_refused(CODE.ABORTED, "Lock", other, timeout={"nanos": 50_000_000})
        self.assert_refused(CODE.ABORTED, "Unlock", other)
        granted = []
        waiting = threading.Thread(target=lambda: granted.append(self.ask("Lock", other).version))
        waiting.start()
        self.ask("Unlock")
        waiting.join(timeout=30)
        self.assertGreater(granted[0], first)
        other.close()


class Map(Primitive, unittest.TestCase):
    kind = "map"

    def test_map(self):
        events = self.ask("Events")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        put = self.ask("Put", key="a", value=b"one")
        self.assertFalse(put.HasField("prev_value"))
        again = self.ask("Put", key="a", value=b"two", prev_version=put.version)
        self.assertEqual((again.prev_value.value, again.prev_value.version), (b"one", put.version))
        self.assert_refused(CODE.ABORTED, "Put", key="a", value=b"x", prev_version=put.version)
        updated = self.ask("Update", key="a", value=b"three", prev_version=again.version)
        self.assertEqual(updated.prev_value.version, again.version)
        self.assertEqual(self.ask("Get", key="a").value.value, b"three")
        self.ask("Insert", key="brief", value=b"x", ttl={"nanos": 100_000_000})
        self.assert_refused(CODE.NOT_FOUND, "Remove", key="c")
        removed = self.ask("Remove", key="a", prev_version=updated.version)
        self.assertEqual((removed.value.value, removed.value.version), (b"three", updated.version))
        seen = told(events, 6)
        # The order of two keys may be either.
        self.assertEqual(
            sorted(which for which, _ in seen),
            ["inserted", "inserted", "removed", "removed", "updated", "updated"],
        )
        self.assertEqual(sum(event.expired for which, event in seen if which == "removed"), 1)
        self.ask("Put", key="b", value=b"four")
        self.assertEqual(self.ask("Size").size, 1)
        [entry] = [one.entry for one in self.ask("Entries")]
        self.assertEqual((entry.key, entry.value.value), ("b", b"four"))
        watch = self.ask("Entries", watch=True)
        self.assertEqual(next(watch).entry, entry)
        self.ask("Put", key="b", value=b"five")
        self.assertEqual(next(watch).entry.value.value, b"five")
        self.ask("Clear")
        self.assertEqual(self.ask("Size").size, 0)

    def test_commit_of_a_map(self):
        results = self.ask(
            "Commit",
            operations=[
                {"insert": {"key": "a", "value": b"one"}},
                {"update": {"key": "a", "value": b"two"}},
                {"put": {"key": "a", "value": b"three"}},
                {"remove": {"key": "a"}},
            ],
        ).results
        kinds = [result.WhichOneof("result") for result in results]
        self.assertEqual(kinds, ["insert", "update", "put", "remove"])
        self.assertTrue(results[0].insert.version < results[1].update.version < results[2].put.version)
        self.assertEqual(results[2].put.prev_value.value, b"two")
        self.assertEqual(results[3].remove.value.value, b"three")

    def test_locks_of_a_map(self):
        assert_locks(self)


class MultiMap(Primitive, unittest.TestCase):
    kind = "multimap"

    def test_multimap(self):
        events = self.ask("Events", key="a")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        self.ask("Put", key="a", value="1")
        self.assert_refused(CODE.ALREADY_EXISTS, "Put", key="a", value="1")
        self.assertTrue(self.ask("PutAll", key="a", values=["1", "2"]).updated)
        self.assertTrue(self.ask("Contains", key="a", value="2").result)
        self.assertEqual(list(self.ask("Get", key="a").values), ["1", "2"])
        self.ask("Remove", key="a", value="1")
        self.assertEqual(list(self.ask("Replace", key="a", values=["3"]).prev_values), ["2"])
        seen = [(which, event.value) for which, event in told(events, 5)]
        self.assertEqual(
            seen, [("added", "1"), ("added", "2"), ("removed", "1"), ("removed", "2"), ("added", "3")]
        )
        entries = [{"key": key, "values": ["x", "y"]} for key in "bcd"]
        self.assertTrue(self.ask("PutEntries", entries=entries).updated)
        self.assertTrue(self.ask("RemoveAll", key="b", values=["y"]).updated)
        listed = {one.entry.key: list(one.entry.values) for one in self.ask("Entries")}
        self.assertEqual(listed, {"a": ["3"], "b": ["x"], "c": ["x", "y"], "d": ["x", "y"]})
        self.assertTrue(self.ask("RemoveEntries", entries=entries[1:]).updated)
        self.assertEqual(self.ask("Size").size, 2)
        self.ask("Clear")
        self.assertEqual(self.ask("Size").size, 0)


class Set(Primitive, unittest.TestCase):
    kind = "set"

    def test_set(self):
        events = self.ask("Events")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        self.assertTrue(self.ask("Add", element={"value": "a"}).added)
        self.assert_refused(CODE.ALREADY_EXISTS, "Add", element={"value": "a"})
        self.assertTrue(self.ask("Contains", element={"value": "a"}).contains)
        self.assertFalse(self.ask("Contains", element={"value": "b"}).contains)
        self.assertTrue(self.ask("Remove", element={"value": "a"}).removed)
        self.ask("Add", element={"value": "brief"}, ttl={"nanos": 100_000_000})
        seen = [(which, event.element.value) for which, event in told(events, 4)]
        self.assertEqual(
            seen, [("added", "a"), ("removed", "a"), ("added", "brief"), ("removed", "brief")]
        )
        for value in ["b", "c"]:
            self.ask("Add", element={"value": value})
        elements = {one.element.value for one in self.ask("Elements")}
        self.assertEqual((elements, self.ask("Size").size), ({"b", "c"}, 2))
        self.ask("Clear")
        self.assertEqual(self.ask("Size").size, 0)


class Topic(Primitive, unittest.TestCase):
    kind = "topic"

    def test_topic(self):
        self.ask("Publish", payload=b"before")
        subscription = self.ask("Subscribe")
        # Its headers come when it has begun.
        subscription.initial_metadata()
        self.ask("Publish", payload=b"now")
        message = next(subscription)
        self.assertEqual((message.offset, message.payload), (2, b"now"))
        self.assertGreater(message.timestamp.seconds, 1_600_000_000)


class Value(Primitive, unittest.TestCase):
    kind = "value"

    def test_value(self):
        watch, events = self.ask("Watch"), self.ask("Events")
        self.assertIsNone(next(events).event.WhichOneof("event"))
        self.assertEqual(next(watch).value.version, 0)
        first = self.ask("Insert", value=b"one").version
        self.assertEqual(self.ask("Get").value.value, b"one")
        update = self.ask("Update", value=b"two", prev_version=first)
        self.assertEqual((update.prev_value.value, update.prev_value.version), (b"one", first))
        self.assert_refused(CODE.ABORTED, "Update", value=b"x", prev_version=first)
        put = self.ask("Set", value=b"three")
        self.assertEqual((put.prev_value.value, put.version > update.version), (b"two", True))
        self.assertEqual(self.ask("Delete", prev_version=put.version).value.value, b"three")
        self.assert_refused(CODE.NOT_FOUND, "Delete")
        self.assertEqual([next(watch).value.value for _ in range(4)], [b"one", b"two", b"three", b""])
        self.assertEqual(
            [which for which, _ in told(events, 4)], ["created", "updated", "updated", "deleted"]
        )


if __name__ == "__main__":
    unittest.main()

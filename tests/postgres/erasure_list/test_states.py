"""The list against a model that fits on a page: random recording, erasing, lifting, settling, retiring, crashing."""

from __future__ import annotations

import shutil
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from obhut.erasure import ledger, reading
from obhut.erasure.entries import Action, Decision, Inventory, NewTombstone, State
from obhut.erasure.errors import IllegalMoveError

KEYS = st.integers(1, 6).map(str)
PRINTS = st.sampled_from(["", "aa" * 32, "bb" * 32])
TABLES = ("erasure_entry", "erasure_tombstone", "erasure_head", "erasure_epoch", "erasure_resolution", "erasure_access")


def make_machine(opened_list, clock):
    class Machine(RuleBasedStateMachine):
        @initialize()
        def empty(self):
            ledger.close_ledger()
            ledger.open_ledger(opened_list)
            session = ledger.places().session()
            session.execute("SET session_replication_role = replica")
            for table in TABLES:
                session.execute(f"DELETE FROM {table}")
            session.execute("RESET session_replication_role")
            shutil.rmtree(opened_list.erasure_list.mirror, ignore_errors=True)
            (opened_list.state.directory / "erasure-list.anchor").unlink(missing_ok=True)
            shutil.rmtree(opened_list.keystore.directory, ignore_errors=True)
            ledger.close_ledger()
            ledger.open_ledger(opened_list)
            self.model: dict[str, list] = {}  # id: [key, fingerprint, action, epoch, state, effective at]
            self.epoch = 0

        def tombstones(self, state=None):
            return [identity for identity, entry in self.model.items() if state is None or entry[4] is state]

        @rule(people=st.lists(st.tuples(KEYS, PRINTS, st.sampled_from(Action)), min_size=1, max_size=4))
        def record(self, people):
            clock.move(timedelta(seconds=1))
            found = ledger.record([NewTombstone("courses", "c", "user", (key,), action, "m", "i", fp) for key, fp, action in people], clock)
            for (key, fp, action), item in zip(people, found, strict=True):
                same = [
                    i for i, e in self.model.items() if (e[0], e[1], e[2], e[3]) == (key, fp, action, self.epoch)
                    and e[4] in {State.RECORDED, State.EFFECTIVE}
                ]  # fmt: skip
                if same:
                    assert [item.id] == same
                else:
                    assert item.id not in self.model
                    self.model[item.id] = [key, fp, action, self.epoch, State.RECORDED, None]

        @rule(data=st.data())
        def erase(self, data):
            chosen = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True, max_size=3)) if self.model else []
            clock.move(timedelta(seconds=1))
            items = reading.find(chosen)
            if any(self.model[i][4] in {State.LIFTED, State.RETIRED} for i in chosen):
                try:
                    ledger.mark_effective("run", items, "0/1", clock)
                except IllegalMoveError:
                    return
                raise AssertionError("an illegal move was made")
            ledger.mark_effective("run", items, "0/1", clock)
            for identity in chosen:
                if self.model[identity][4] is State.RECORDED:
                    self.model[identity][4:] = [State.EFFECTIVE, clock.now()]

        @rule(data=st.data())
        def lift(self, data):
            if not self.model:
                return
            identity = data.draw(st.sampled_from(sorted(self.model)))
            legal = self.model[identity][4] in {State.RECORDED, State.EFFECTIVE}
            try:
                ledger.lift([identity], "i", clock)
            except IllegalMoveError:
                assert not legal
            else:
                assert legal
                self.model[identity][4] = State.LIFTED

        @rule(data=st.data(), decision=st.sampled_from(Decision))
        def settle(self, data, decision):
            if choices := self.tombstones(State.RECORDED) + self.tombstones(State.EFFECTIVE):
                ledger.resolve(data.draw(st.sampled_from(sorted(choices))), "dd" * 32, decision, "i", clock)

        @rule(days=st.integers(0, 50), copies=st.none() | st.integers(0, 50))
        def retire(self, days, copies):
            clock.move(timedelta(days=days))
            since = None if copies is None else clock.now() - timedelta(days=copies)
            due = [i for i in self.tombstones(State.EFFECTIVE) if since is None or self.model[i][5] < since]
            assert ledger.retire(Inventory("courses", complete=True, copies_since=since, taken_at=clock.now()), clock) == len(due)
            for identity in due:
                self.model[identity][4] = State.RETIRED

        @rule()
        def restore(self):
            self.epoch += 1
            assert ledger.new_epoch("courses", f"run_{self.epoch}", "7000000000000000001", 1 + self.epoch, clock).number == self.epoch

        @rule()
        def lose_the_control_database(self):
            if not reading.head().size:
                return
            session = ledger.places().session()
            session.execute("SET session_replication_role = replica")
            for table in TABLES:
                session.execute(f"DELETE FROM {table}")
            session.execute("RESET session_replication_role")
            ledger.recover(opened_list, clock)

        @rule()
        def lose_the_mirror(self):
            if reading.head().size:
                shutil.rmtree(opened_list.erasure_list.mirror)
                ledger.recover(opened_list, clock)

        @rule()
        def start_anew(self):
            ledger.close_ledger()
            ledger.open_ledger(opened_list)

        @invariant()
        def the_list_is_the_model(self):
            if not hasattr(self, "model"):
                return
            found = {item.id: item for chunk in reading.open_list("courses") for item in chunk}
            expected = {i: e for i, e in self.model.items() if e[4] in {State.RECORDED, State.EFFECTIVE}}
            assert {i: [t.key, t.fingerprint, t.action, t.epoch, t.state] for i, t in found.items()} == {
                i: [(e[0],), e[1], e[2], e[3], e[4]] for i, e in expected.items()
            }
            for item in reading.find(self.tombstones(State.LIFTED) + self.tombstones(State.RETIRED)):
                assert item.key is None
            report = ledger.verify_list(opened_list, settle_at=clock)
            assert report.states == {state: len(self.tombstones(state)) for state in State}

    return Machine


def test_the_list_follows_its_state_machine(opened_list, clock):
    """Whatever happens in whatever order, the open list, the forgotten and the verification agree with the model."""
    run_state_machine_as_test(
        make_machine(opened_list, clock),
        settings=settings(max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None),
    )

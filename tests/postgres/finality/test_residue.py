"""Bytes of erased people: where they remain, what removes them, and that nothing is called gone before it is. Values are searched as control."""

from __future__ import annotations

from contextlib import suppress

import pytest
from support.studio import ACTOR, Club

from obhut.erasure.entries import Action
from obhut.erasure.erase import Eraser
from obhut.finality import look, objects, prove
from obhut.finality.clean import clean
from obhut.finality.errors import FinalityError
from obhut.finality.judge import Trace
from obhut.finality.vocabulary import Place, TraceState
from obhut.postgres.connections import Session

pytestmark = pytest.mark.postgres
FILES = (Place.HEAP, Place.INDEX, Place.STATISTICS)


def _erase(club: Club, *numbers: int, action: Action = Action.ANONYMISE) -> str:
    with Eraser(club.settings, "club") as eraser:
        return eraser.erase("member", [(str(number),) for number in numbers], action, ACTOR, club.clock).run


def _traces(club: Club) -> dict[Place, Trace]:
    """Return the traces of the youngest observation."""
    found = look.look(club.settings, "club", club.clock).open
    return {trace.place: trace for trace in found[-1][1]}


def _states(club: Club) -> dict[Place, TraceState]:
    return {place: trace.state for place, trace in _traces(club).items()}


def _hits(club: Club, *numbers: int) -> dict[Place, int]:
    """Return how often the old values of members lie in the files of each place."""
    values = [text for number in numbers for text in (f"Secret{number}name", f"secret{number}@mail", f"secret{number} came")]
    with club.installation.session() as session:
        found = prove.search(look.take_in(club.settings, "club", session), values)
    return {place: sum(one.hits for one in found if one.place is place) for place in (*FILES, Place.WAL)}


def _fresh_wal(session: Session) -> None:
    for _ in range(3):
        session.execute(["CREATE TABLE noise (n int)", " DROP TABLE noise"][0])
        session.execute("DROP TABLE noise")
        session.execute("SELECT pg_switch_wal()")
        session.execute("CHECKPOINT")


def test_from_anonymised_to_the_last_byte(club: Club) -> None:
    """Old values lie in heap, index, catalogue and WAL after a plain VACUUM; each step removes what it says, and the search finds what is said."""
    people = [club.member(n) for n in (30, 31, 32, 33)]
    club.installation.sql("ANALYZE member")
    _erase(club, *people[:2])
    _erase(club, *people[2:], action=Action.ERASE)
    first = _traces(club)
    assert {place: trace.state for place, trace in first.items()} == dict.fromkeys(Place, TraceState.REMAINS)
    assert {"public.member", "public.checkin"} <= set(first[Place.HEAP].objects)
    assert {"public.member_search", "public.member_email_key"} <= set(first[Place.INDEX].objects)
    assert "public.member_pkey" not in first[Place.INDEX].objects, "keys tell nothing"
    before = _hits(club, *people)
    assert all(before.values()), f"no positive control: {before}"
    club.installation.sql("VACUUM member")
    assert _hits(club, *people)[Place.HEAP], "a plain VACUUM leaves bytes where they are"

    done = clean(club.settings, "club", club.clock)
    assert "public.member_email_key" in done.work.rebuilt and "public.member" in done.work.vacuumed and not done.work.rewritten
    assert _states(club) == {
        Place.HEAP: TraceState.REMAINS, Place.INDEX: TraceState.GONE, Place.STATISTICS: TraceState.REMAINS,
        Place.WAL: TraceState.REMAINS, Place.BACKUPS: TraceState.REMAINS,
    }  # fmt: skip
    assert _hits(club, *people)[Place.INDEX] == 0
    assert clean(club.settings, "club", club.clock).work.rebuilt == [], "what is clean is not rebuilt again"

    done = clean(club.settings, "club", club.clock, rewrite=True)
    assert {"public.member", "public.checkin", "pg_catalog.pg_statistic"} <= set(done.work.rewritten)
    states = _states(club)
    assert {states[place] for place in FILES} == {TraceState.GONE}
    assert states[Place.WAL] is TraceState.REMAINS
    after = _hits(club, *people)
    assert [after[place] for place in FILES] == [0, 0, 0]
    assert after[Place.WAL] > 0

    with club.installation.session() as session:
        _fresh_wal(session)
    traces = _traces(club)
    assert traces[Place.WAL].state is TraceState.GONE
    assert _hits(club, *people) == dict.fromkeys((*FILES, Place.WAL), 0)
    backups = traces[Place.BACKUPS]
    assert backups.state is TraceState.UNSEEN and backups.when is not None, "no repository here: nothing is claimed, only a date"
    assert (backups.when - max(traces[place].when for place in FILES)).days == 35


def test_an_old_snapshot_keeps_everything_open(club: Club) -> None:
    """While a snapshot can see the old rows, a rebuilt file proves nothing: it is not settled, and cleaning does not count."""
    person = club.member(34)
    with club.installation.session() as reader, suppress(ZeroDivisionError), reader.transaction("repeatable read"):
        reader.value("SELECT count(*) FROM studio")  # a snapshot, and no lock on the members
        _erase(club, person)
        assert "older snapshot" in _traces(club)[Place.HEAP].why
        clean(club.settings, "club", club.clock, rewrite=True)
        club.installation.sql("VACUUM FULL member")
        assert set(_states(club).values()) == {TraceState.REMAINS}
        assert _hits(club, person)[Place.HEAP] > 0, "the rewrite has carried the old row along"
        raise ZeroDivisionError
    assert "older snapshot" not in _traces(club)[Place.HEAP].why
    clean(club.settings, "club", club.clock, rewrite=True)
    states = _states(club)
    assert {states[place] for place in FILES} == {TraceState.GONE}
    assert _hits(club, person)[Place.HEAP] == 0


def test_whoever_rebuilds_a_file_has_rebuilt_it(club: Club) -> None:
    """The vendor's own VACUUM FULL counts like Obhut's; later changes of the table do not take that back."""
    _erase(club, club.member(35))
    assert _states(club)[Place.HEAP] is TraceState.REMAINS
    for table in ("member", "checkin", "call", "door"):
        club.installation.sql(f"VACUUM FULL {table}")
    club.installation.sql(f"UPDATE member SET signed_in_at = now() WHERE studio_id = {club.studio}")
    states = _states(club)
    assert (states[Place.HEAP], states[Place.INDEX]) == (TraceState.GONE, TraceState.GONE)


def test_a_killed_rebuild_leaves_no_twin(club: Club) -> None:
    """The invalid index that a broken REINDEX CONCURRENTLY leaves holds old values, too: the next cleaning drops it."""
    club.installation.sql("CREATE INDEX member_search_ccnew ON member (lower(name))")
    club.installation.sql("UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'member_search_ccnew'::regclass")
    _erase(club, club.member(36))
    clean(club.settings, "club", club.clock)
    assert club.installation.value("SELECT to_regclass('public.member_search_ccnew')::text") is None


def test_a_role_that_sees_too_little_claims_nothing(club: Club) -> None:
    """Without pg_read_all_stats nothing can be said at all; without the server's files nothing about the WAL."""
    _erase(club, club.member(37))
    with club.installation.session() as session:
        session.execute("CREATE ROLE plain LOGIN")
        session.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain")
        session.execute("SET ROLE plain")
        with pytest.raises(FinalityError, match="does not see the snapshots"):
            look.take_in(club.settings, "club", session)
        session.execute("RESET ROLE")
        session.execute("GRANT pg_read_all_stats TO plain")
        session.execute("SET ROLE plain")
        site = look.take_in(club.settings, "club", session)
        assert objects.oldest_wal(session) is None
        with pytest.raises(FinalityError, match="may not read the server's files"):
            prove.search(site, ["a value that is long"])
        session.execute("RESET ROLE")
        session.execute("REVOKE pg_read_all_stats FROM plain")
        session.execute("DROP OWNED BY plain")
        session.execute("DROP ROLE plain")


def test_each_erasure_can_be_asked_for(club: Club) -> None:
    """A run names its erasure: what may remain of the one, not of another; a run that the list does not confirm is refused."""
    first = _erase(club, club.member(38))
    look.look(club.settings, "club", club.clock)
    second = _erase(club, club.member(39))
    found = look.look(club.settings, "club", club.clock)
    (one,), (other,) = look.only(found, first).open, look.only(found, second).open
    assert one[0].seen.id != other[0].seen.id
    assert (one[0].runs, other[0].runs, other[0].kinds) == (1, 1, (("member", "anonymise"),))
    with pytest.raises(FinalityError, match="confirms no erasure"):
        look.only(found, "run_unknown")


def test_a_cleaning_that_dies_is_taken_up_where_it_was(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after a rewrite, after a rebuild: what was done counts, the next cleaning does the rest."""

    class Died(BaseException):
        pass

    def die(name: str) -> None:
        if name == wanted:
            raise Died

    _erase(club, club.member(30))
    for wanted in ("finality.vacuumed", "finality.rebuilt", "finality.rewritten"):
        with monkeypatch.context() as patch:
            patch.setattr("obhut.finality.clean.reach", die)
            with pytest.raises(Died):
                clean(club.settings, "club", club.clock, rewrite=wanted == "finality.rewritten")
    clean(club.settings, "club", club.clock, rewrite=True)
    states = _states(club)
    assert {states[place] for place in FILES} == {TraceState.GONE}

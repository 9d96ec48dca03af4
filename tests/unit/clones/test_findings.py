"""What findings amount to."""

from __future__ import annotations

from obhut.clones.findings import Leak, Result, failed, leaks, settled
from obhut.clones.leaks import texts
from obhut.clones.originals import Originals, judged, kept_paths
from obhut.datamap.kinds import Kind
from obhut.datamap.transformers import Family
from obhut.masking.model import ColumnPlan
from obhut.restores.scan import Place


def test_to_have_looked_at_nothing_is_no_pass() -> None:
    """Nothing found in nothing is unchecked, with the reason; anything found fails, in the order of places."""
    assert settled("rows", 0, [], nothing="empty").result is Result.UNCHECKED
    assert settled("rows", 3, [], nothing="empty").result is Result.PASSED
    bad = settled("rows", 3, [Leak("b", 2), Leak("a")], nothing="")
    assert bad.result is Result.FAILED and [leak.place for leak in bad.leaks] == ["a", "b"]
    assert failed([bad, settled("x", 1, [], nothing="")]) == [bad]
    assert leaks([bad]) == list(bad.leaks)


def _originals() -> Originals:
    found = Originals()
    found.identifiers.add(["anna@firma.de"])
    return found


def test_a_definition_that_names_a_person_is_called_by_its_kind() -> None:
    """A place is named, unless its name is the value."""
    places = [
        Place("COMMENT TABLE public.person", "COMMENT ON TABLE public.person IS 'such as Anna@Firma.de'"),
        Place("INDEX public.anna@firma.de", 'CREATE INDEX "anna@firma.de" ON public.person (email)'),
        Place("TABLE public.person", "CREATE TABLE public.person (email text)"),
    ]
    statement = texts("definitions", places, _originals())
    assert [leak.place for leak in statement.leaks] == ["COMMENT TABLE public.person", "INDEX number 2 (named after a value)"]
    assert statement.looked_at == 3


def test_words_that_masks_invent_prove_nothing() -> None:
    """A name of the word lists may be the source's by chance; one that is in no list is judged, a kept path is not."""
    assert not judged("", "Schmidt", frozenset()) or not judged("", "Müller", frozenset())
    assert judged("", "Secret12first", frozenset())
    assert not judged("", "abc", frozenset())
    column = ColumnPlan(
        "profile", Kind(family=Family.JSON, base_type="jsonb"), not_null=False, transformer="json",
        options={"paths": {"$.lang": {"keep": "two letters"}, "$.email": "email"}},
    )  # fmt: skip
    assert kept_paths(column) == {"$.lang"}
    assert not judged("$.lang", "esperanto", kept_paths(column))
    assert judged("$.email", "anna@firma.de", kept_paths(column))

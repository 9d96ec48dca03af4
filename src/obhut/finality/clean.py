"""Remove what erasures left as bytes: vacuum, rebuild indexes, renew statistics; rewrite tables when asked.

Nobody waits for the first three: VACUUM, ANALYZE and REINDEX CONCURRENTLY let others read and write. A rewrite keeps everybody from the
table while it runs, so it is done in a window or when somebody asks, and gives up when it does not get the lock in time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from obhut.erasure import ledger
from obhut.finality import objects, records, windows
from obhut.finality.errors import CleaningIncompleteError
from obhut.finality.judge import Known
from obhut.finality.look import Residue, Site, judged, take_in
from obhut.finality.objects import CATALOGUE, File
from obhut.finality.vocabulary import Place
from obhut.foundation.clock import Clock
from obhut.foundation.faultpoints import reach
from obhut.foundation.settings import Settings
from obhut.postgres.connections import Session
from obhut.postgres.errors import DatabaseError
from obhut.postgres.sql import SQL, Composable, Identifier

PATIENCE = "10s"  # for the lock of a rewrite: whoever comes after it waits behind it
CONCURRENT_PATIENCE = "30min"  # a concurrent rebuild waits for older transactions, and nobody waits for it
# What a rebuild that was killed leaves behind.
_LEFTOVERS = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
  AND i.indrelid IN (SELECT indrelid FROM pg_catalog.pg_index WHERE indexrelid = ANY(%s::oid[]))
"""


@dataclass(slots=True)
class Work:
    """What was done, by names of objects, and what failed with the code of its error."""

    vacuumed: list[str] = field(default_factory=list)
    analysed: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was done, and what can be said afterwards."""

    work: Work
    residue: Residue


def clean(settings: Settings, database: str, clock: Clock, *, rewrite: bool = False) -> Cleaned:
    """Clean every object in which a trace of a settled erasure may remain.

    Args:
        settings: the installation.
        database: name of the protected database.
        clock: tells the time.
        rewrite: also rewrite tables, which keeps everybody from them for a while; done in the configured window in any case.

    Raises:
        FinalityError: the role does not see enough.
        CleaningIncompleteError: some objects could not be cleaned; the others are.
    """
    ledger.open_ledger(settings)
    configured = settings.database(database)
    allowed = rewrite or windows.is_open(configured.finality.window, configured.finality.zone, clock.now())
    with Session.connect(configured.url, application_name="obhut finality") as session:
        cleaner = _Cleaner(database, take_in(settings, database, session))
        cleaner.run(rewrite=allowed)
        residue = judged(settings, database, take_in(settings, database, session), clock)
    if cleaner.work.failed:
        named = ", ".join(sorted(cleaner.work.failed))
        raise CleaningIncompleteError(
            f"{len(cleaner.work.failed)} objects could not be cleaned: {named}",
            "Does the role own them (MAINTAIN from PostgreSQL 17 on), and does a long transaction hold them? Run it again.",
        )
    return Cleaned(cleaner.work, residue)


class _Cleaner:
    def __init__(self, database: str, site: Site) -> None:
        self._database = database
        self._site = site
        self._session = site.session
        self._known = records.known(database, site.mark.server)
        self.work = Work()

    def run(self, *, rewrite: bool) -> None:
        todo = self._todo()
        self._sweep_leftovers(todo)
        if rewrite:
            for name in dict.fromkeys(file.owner for file in todo if file.place is Place.HEAP):
                self._rewrite(name)
            self._known = records.known(self._database, self._site.mark.server)
            todo = self._todo()
        for file in todo:
            if file.place is Place.HEAP and not file.name.startswith("TOAST"):
                self._vacuum(file)
        for file in todo:
            if file.place is Place.INDEX:
                self._rebuild(file)
        for file in todo:
            if file.place is Place.STATISTICS and not file.filenode:
                self._analyse(file)
        if rewrite and any(file.name == CATALOGUE for file in todo):
            self._rewrite_catalogue()

    def _todo(self) -> list[File]:
        """Return the objects that are not clean for some settled erasure, each once."""
        found: dict[tuple[Place, str], File] = {}
        for one in records.observations(self._database):
            if one.seen.settled_at is None or one.seen.server != self._site.mark.server:
                continue
            for file in self._site.of(one):
                known = self._known.get((file.place, file.name))
                if known is None or not self._is_clean(file, known, one.seen.settled_at):
                    found[file.place, file.name] = file
        return list(found.values())

    def _is_clean(self, file: File, known: Known, settled: datetime) -> bool:
        if file.place is not Place.STATISTICS:
            return known.since > settled
        gathered = [known.cleaned_at] if file.filenode else [known.cleaned_at, file.renewed_at]
        return any(moment > settled for moment in gathered if moment is not None)

    # -- one object -----------------------------------------------------------------------------------------------------------

    def _rewrite(self, name: str) -> None:
        if self._does(name, SQL("VACUUM (FULL, ANALYZE) {}").format(_relation(name)), PATIENCE):
            self.work.rewritten.append(name)
            self._seen_anew()
            records.cleaned(self._database, objects.mark(self._session), Place.STATISTICS, name)
        reach("finality.rewritten")

    def _rewrite_catalogue(self) -> None:
        """Rewrite the catalogue of statistics last: what ANALYZE replaced lies in it until then, and as long as a snapshot sees it."""
        if self.work.failed or objects.catalogue_held_back(self._session, objects.mark(self._session).xid):
            return
        if self._does(CATALOGUE, SQL("VACUUM (FULL) {}").format(_relation(CATALOGUE)), PATIENCE):
            self.work.rewritten.append(CATALOGUE)
            self._seen_anew()
            mark = objects.mark(self._session)
            for name in (CATALOGUE, f"TOAST of {CATALOGUE}"):
                records.cleaned(self._database, mark, Place.STATISTICS, name)

    def _vacuum(self, file: File) -> None:
        # Every page, and waiting for those that are in use: a page that is left out keeps its dead rows.
        statement = SQL("VACUUM (DISABLE_PAGE_SKIPPING, INDEX_CLEANUP ON) {}").format(_relation(file.name))
        if self._does(file.name, statement, CONCURRENT_PATIENCE):
            self.work.vacuumed.append(file.name)
            mark = objects.mark(self._session)
            records.cleaned(self._database, mark, Place.HEAP, file.name)
            records.cleaned(self._database, mark, Place.HEAP, f"TOAST of {file.name}")
        reach("finality.vacuumed")

    def _rebuild(self, file: File) -> None:
        if not file.concurrent:
            return  # an exclusion constraint's: only with its table
        if self._does(file.name, SQL("REINDEX INDEX CONCURRENTLY {}").format(_relation(file.name)), CONCURRENT_PATIENCE):
            self.work.rebuilt.append(file.name)
            self._seen_anew()
        else:
            self._sweep_leftovers([file])
        reach("finality.rebuilt")

    def _analyse(self, file: File) -> None:
        if self._does(file.name, SQL("ANALYZE {}").format(_relation(file.name)), CONCURRENT_PATIENCE):
            self.work.analysed.append(file.name)
            records.cleaned(self._database, objects.mark(self._session), Place.STATISTICS, file.name)

    def _does(self, name: str, statement: Composable, patience: str) -> bool:
        try:
            self._session.set("lock_timeout", patience)
            self._session.execute(statement)
        except DatabaseError as error:
            self.work.failed[name] = error.code
            return False
        return True

    def _seen_anew(self) -> None:
        """Note the numbers of the files as they are now, so that what was built anew counts from now on."""
        mark = objects.mark(self._session)
        roots = {oid for oid, node in self._site.graph.tables.items() if node.rule.personal}
        files = objects.read(self._session, self._site.graph, roots)
        records.keep(self._database, mark, [file for file in files if (file.place, file.name) in self._known])

    def _sweep_leftovers(self, files: Iterable[File]) -> None:
        """Drop what a rebuild that was killed or gave up has left: an invalid twin of an index, with values of its own."""
        indexes = [file.oid for file in files if file.place is Place.INDEX]
        for schema, name in self._session.rows(_LEFTOVERS, (indexes,)):
            self._does(
                f"{schema}.{name}", SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(schema, name)), CONCURRENT_PATIENCE
            )


def _relation(name: str) -> Identifier:
    schema, _, relation = name.partition(".")
    return Identifier(schema, relation)

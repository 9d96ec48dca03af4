"""Plans from hand-made catalogues and maps."""

from __future__ import annotations

from dataclasses import replace

from datamap_schemas import HEAD, Schema, load_map, people

from obhut.datamap.check import examine
from obhut.datamap.surroundings import Surroundings
from obhut.masking.model import MaskPlan, TablePlan
from obhut.masking.plan import plan
from obhut.postgres.catalogue import Key


def planned(schema: Schema, tables: str = "", *, head: str = HEAD, around: Surroundings | None = None) -> MaskPlan:
    """Return the plan; the map may be one that its own check refuses."""
    graph, findings = examine(load_map(tables, head), "d", schema.catalogue, around or Surroundings())
    assert graph is not None, findings
    return plan(graph, around or Surroundings())


def table(made: MaskPlan, name: str) -> TablePlan:
    return next(one for one in made.tables.values() if one.name == f"public.{name}")


def refused(made: MaskPlan) -> set[str]:
    return {refusal.code for refusal in made.refusals}


def patient(extra: str, *columns: object, unique: tuple[str, ...] = ()) -> tuple[Schema, str]:
    """Return patients with one more personal column ``x``, by its rule."""
    schema = people()
    oid = schema.names["public.patient"]
    found = schema.tables[oid]
    keys = (*found.keys, Key("patient_x", False, unique, None)) if unique else found.keys
    schema.tables[oid] = replace(found, columns=(*found.columns, *columns), keys=keys)  # type: ignore[arg-type]
    return schema, HEAD.replace("        not_personal", f"          x: {extra}\n        not_personal")

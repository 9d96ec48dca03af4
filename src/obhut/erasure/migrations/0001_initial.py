"""Tables of the erasure list."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the tables; the guards follow in 0002."""

    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("body", models.TextField()),
                ("hash", models.BinaryField()),
            ],
            options={
                "db_table": "erasure_entry",
            },
        ),
        migrations.CreateModel(
            name="Epoch",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("database", models.TextField()),
                ("number", models.IntegerField()),
                ("run", models.TextField()),
                ("system_identifier", models.TextField()),
                ("timeline", models.IntegerField()),
                ("opened_at", models.DateTimeField()),
            ],
            options={
                "db_table": "erasure_epoch",
                "constraints": [models.UniqueConstraint(fields=("database", "number"), name="erasure_epoch_number")],
            },
        ),
        migrations.CreateModel(
            name="Head",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("origin", models.TextField()),
                ("size", models.BigIntegerField()),
                ("hash", models.BinaryField()),
            ],
            options={
                "db_table": "erasure_head",
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="erasure_head_single")],
            },
        ),
        migrations.CreateModel(
            name="Tombstone",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("identifier", models.TextField(db_column="id")),
                ("database", models.TextField()),
                ("controller", models.TextField()),
                ("subject_kind", models.TextField()),
                ("key", django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), null=True, size=None)),
                ("fingerprint", models.TextField(null=True)),
                ("salt", models.BinaryField(null=True)),
                ("action", models.TextField()),
                ("map_version", models.TextField()),
                ("instruction", models.TextField()),
                ("epoch", models.IntegerField()),
                ("erased_at", models.DateTimeField()),
                ("state", models.TextField()),
                ("sealed_under", models.TextField()),
                ("effective_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "erasure_tombstone",
                "indexes": [
                    models.Index(models.F("database"), models.F("subject_kind"), models.F("seq"), name="erasure_tombstone_list"),
                    models.Index(models.F("database"), models.F("subject_kind"), models.F("key"), name="erasure_tombstone_key"),
                    models.Index(models.F("sealed_under"), condition=models.Q(("key__isnull", False)), name="erasure_tombstone_label"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("identifier",), name="erasure_tombstone_identifier"),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["recorded", "effective", "lifted", "retired"])), name="erasure_tombstone_state"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["recorded", "effective"]),
                            models.Q(("fingerprint", None), ("key", None), ("salt", None)),
                            _connector="OR",
                        ),
                        name="erasure_tombstone_forgotten",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Resolution",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                ("decision", models.TextField()),
                ("found", models.TextField(null=True)),
                ("salt", models.BinaryField(null=True)),
                (
                    "tombstone",
                    models.ForeignKey(
                        db_column="tombstone", db_constraint=False, on_delete=django.db.models.deletion.PROTECT, to="erasure.tombstone"
                    ),
                ),
            ],
            options={
                "db_table": "erasure_resolution",
            },
        ),
        migrations.CreateModel(
            name="Access",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("actor", models.TextField()),
                ("purpose", models.TextField()),
                ("at", models.DateTimeField()),
                (
                    "tombstone",
                    models.ForeignKey(
                        db_column="tombstone", db_constraint=False, on_delete=django.db.models.deletion.PROTECT, to="erasure.tombstone"
                    ),
                ),
            ],
            options={
                "db_table": "erasure_access",
            },
        ),
    ]

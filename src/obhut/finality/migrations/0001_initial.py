"""Observations and objects."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Object",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("server", models.CharField(max_length=32)),
                ("place", models.CharField(max_length=16)),
                ("name", models.CharField(max_length=200)),
                ("filenode", models.BigIntegerField()),
                ("since", models.DateTimeField()),
                ("since_lsn", models.CharField(max_length=20)),
                ("cleaned_at", models.DateTimeField(null=True)),
                ("cleaned_lsn", models.CharField(blank=True, default="", max_length=20)),
            ],
            options={
                "db_table": "finality_object",
                "constraints": [models.UniqueConstraint(fields=("database", "server", "place", "name"), name="finality_object_name")],
            },
        ),
        migrations.CreateModel(
            name="Observation",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("server", models.CharField(max_length=32)),
                ("taken_at", models.DateTimeField()),
                ("first_entry", models.BigIntegerField()),
                ("last_entry", models.BigIntegerField()),
                ("runs", models.IntegerField()),
                ("people", models.BigIntegerField()),
                ("kinds", models.JSONField()),
                ("xid", models.BigIntegerField()),
                ("settled_at", models.DateTimeField(null=True)),
                ("final_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "finality_observation",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("first_entry__lte", models.F("last_entry"))), name="finality_observation_entries"
                    ),
                    models.UniqueConstraint(fields=("database", "last_entry"), name="finality_observation_once"),
                ],
            },
        ),
    ]

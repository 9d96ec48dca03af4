"""Heads, marks, topics, the partitioned index, and the outbox."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Log",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("controller", models.CharField(max_length=64)),
                ("period", models.CharField(max_length=7)),
                ("origin", models.CharField(max_length=64, unique=True)),
                ("size", models.BigIntegerField()),
                ("root", models.BinaryField(max_length=32)),
                ("tail", models.BigIntegerField()),
                ("opened_at", models.DateTimeField()),
                ("grown_at", models.DateTimeField()),
                ("removed_at", models.DateTimeField(null=True)),
                ("checkpoint", models.TextField(blank=True, default="")),
            ],
            options={
                "db_table": "auditlog_log",
                "constraints": [models.UniqueConstraint(fields=("controller", "period"), name="auditlog_log_period")],
            },
        ),
        migrations.CreateModel(
            name="Mark",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("source", models.CharField(max_length=100)),
                ("system", models.CharField(max_length=32)),
                ("timeline", models.BigIntegerField()),
                ("lsn", models.CharField(max_length=20)),
                ("ordinal", models.BigIntegerField()),
                ("at", models.DateTimeField()),
            ],
            options={
                "db_table": "auditlog_mark",
                "constraints": [models.UniqueConstraint(fields=("database", "source"), name="auditlog_mark_source")],
            },
        ),
        migrations.CreateModel(
            name="Topic",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("relation", models.CharField(max_length=130)),
                ("kind", models.CharField(max_length=16)),
                ("operation", models.CharField(max_length=64)),
            ],
            options={
                "db_table": "auditlog_topic",
                "constraints": [models.UniqueConstraint(fields=("database", "relation", "kind", "operation"), name="auditlog_topic_name")],
            },
        ),
        migrations.CreateModel(
            name="Act",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("controller", models.CharField(max_length=64, null=True)),
                ("database", models.CharField(max_length=63)),
                ("at", models.DateTimeField()),
                ("name", models.CharField(max_length=64)),
                ("detail", models.JSONField()),
            ],
            options={"db_table": "auditlog_act"},
        ),
        migrations.CreateModel(
            name="Witness",
            fields=[
                ("id", models.AutoField(primary_key=True, serialize=False)),
                ("controller", models.CharField(max_length=64)),
                ("key", models.TextField()),
                ("declared_by", models.CharField(max_length=100)),
                ("declared_at", models.DateTimeField()),
            ],
            options={
                "db_table": "auditlog_witness",
                "constraints": [models.UniqueConstraint(fields=("controller", "key"), name="auditlog_witness_key")],
            },
        ),
        migrations.CreateModel(
            name="Retention",
            fields=[
                ("controller", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("days", models.IntegerField()),
                ("set_by", models.CharField(max_length=100)),
                ("set_at", models.DateTimeField()),
            ],
            options={
                "db_table": "auditlog_retention",
                "constraints": [models.CheckConstraint(condition=models.Q(("days__gte", 1)), name="auditlog_retention_days")],
            },
        ),
        migrations.RunSQL(
            """
            CREATE TABLE auditlog_index (
                period integer NOT NULL,      -- 202611
                log integer NOT NULL,
                seq bigint NOT NULL,
                at timestamptz NOT NULL,
                topic integer NOT NULL,
                subject uuid                  -- id of a person's key; an entry about several people has a row for each
            ) PARTITION BY LIST (period);
            CREATE INDEX auditlog_index_topic ON auditlog_index (log, topic, at, seq);
            -- By parts of 2^18 entries: new rows touch the few pages of the last part, not leaves all over the month.
            CREATE INDEX auditlog_index_subject ON auditlog_index (log, (seq >> 18), subject) WHERE subject IS NOT NULL;
            """,
            "DROP TABLE auditlog_index",
        ),
    ]

"""Rules, cases, holds and sweeps."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Hold",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("controller", models.CharField(max_length=64)),
                ("subject_kind", models.CharField(max_length=63)),
                ("key", models.TextField(null=True)),
                ("reason", models.CharField(max_length=16)),
                ("reference", models.CharField(max_length=64)),
                ("until", models.DateTimeField(null=True)),
                ("placed_by", models.CharField(max_length=100)),
                ("placed_at", models.DateTimeField()),
                ("lifted_by", models.CharField(blank=True, default="", max_length=100)),
                ("lifted_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "retention_hold",
                "indexes": [
                    models.Index(condition=models.Q(("lifted_at", None)), fields=["database", "subject_kind"], name="retention_hold_scope")
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("reason__in", ["litigation", "authority", "request", "restriction", "controller"])),
                        name="retention_hold_reason",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reference__regex", "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")), name="retention_hold_reference"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("until", None), ("until__gt", models.F("placed_at")), _connector="OR"),
                        name="retention_hold_until",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("lifted_at", None), ("key", None), _connector="OR"), name="retention_hold_forgotten"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Rule",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("controller", models.CharField(max_length=64)),
                ("controller_key", models.TextField()),
                ("subject_kind", models.CharField(max_length=63)),
                ("instruction", models.CharField(max_length=64)),
                ("period", models.CharField(max_length=40)),
                ("notice", models.CharField(blank=True, default="", max_length=40)),
                ("grace", models.CharField(max_length=40)),
                ("zone", models.CharField(max_length=64)),
                ("daily_cap", models.IntegerField()),
                ("alarm_share", models.FloatField()),
                ("accepted_share", models.FloatField(null=True)),
                ("accepted_until", models.DateTimeField(null=True)),
                ("accepted_by", models.CharField(blank=True, default="", max_length=100)),
                ("recorded_by", models.CharField(max_length=100)),
                ("recorded_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(null=True)),
                ("revoked_by", models.CharField(blank=True, default="", max_length=100)),
            ],
            options={
                "db_table": "retention_rule",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("revoked_at", None)), fields=("controller", "subject_kind"), name="retention_rule_in_force"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("database__regex", "^[a-z][a-z0-9_]{0,62}$")), name="retention_rule_database"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("period__regex", "^P(\\d+[YMWD])+$"), ("grace__regex", "^P(\\d+[YMWD])+$")),
                        name="retention_rule_periods",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("notice", ""), ("notice__regex", "^P(\\d+[YMWD])+$"), _connector="OR"),
                        name="retention_rule_notice",
                    ),
                    models.CheckConstraint(condition=models.Q(("daily_cap__gt", 0)), name="retention_rule_cap"),
                    models.CheckConstraint(
                        condition=models.Q(("alarm_share__gt", 0), ("alarm_share__lte", 1)), name="retention_rule_share"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Sweep",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("run", models.CharField(max_length=64)),
                ("database", models.CharField(max_length=63)),
                ("rule", models.CharField(max_length=200)),
                ("state", models.CharField(max_length=16)),
                ("obstacle", models.CharField(blank=True, default="", max_length=32)),
                ("error_code", models.CharField(blank=True, default="", max_length=64)),
                ("actor", models.CharField(max_length=100)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("people", models.BigIntegerField(default=0)),
                ("due", models.BigIntegerField(default=0)),
                ("held", models.BigIntegerField(default=0)),
                ("told", models.BigIntegerField(default=0)),
                ("returned", models.BigIntegerField(default=0)),
                ("anonymised", models.BigIntegerField(default=0)),
                ("spared", models.BigIntegerField(default=0)),
                ("left", models.BigIntegerField(default=0)),
                ("rows_changed", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "retention_sweep",
                "indexes": [models.Index(fields=["database", "rule", "-started_at"], name="retention_sweep_recent")],
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("state__in", ["running", "done", "failed"])), name="retention_sweep_state")
                ],
            },
        ),
        migrations.CreateModel(
            name="Case",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("subject_kind", models.CharField(max_length=63)),
                ("key", models.TextField()),
                ("state", models.CharField(max_length=16)),
                ("attempts", models.IntegerField(default=0)),
                ("made_at", models.DateTimeField()),
                ("told_at", models.DateTimeField(null=True)),
                ("reached", models.BooleanField(default=False)),
                ("rule", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="cases", to="retention.rule")),
            ],
            options={
                "db_table": "retention_case",
                "indexes": [models.Index(fields=["rule", "state", "told_at"], name="retention_case_due")],
                "constraints": [
                    models.UniqueConstraint(fields=("database", "subject_kind", "key"), name="retention_case_person"),
                    models.CheckConstraint(condition=models.Q(("state__in", ["waiting", "told", "taken"])), name="retention_case_state"),
                    models.CheckConstraint(
                        condition=models.Q(models.Q(("state", "told"), _negated=True), ("told_at__isnull", False), _connector="OR"),
                        name="retention_case_told",
                    ),
                ],
            },
        ),
    ]

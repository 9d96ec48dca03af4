"""Whoever is taken without a notice is noted part by part and not one by one."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the table."""

    dependencies = [("retention", "0002_fewer_indexes")]

    operations = [
        migrations.CreateModel(
            name="Part",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("database", models.CharField(max_length=63)),
                ("subject_kind", models.CharField(max_length=63)),
                ("keys", models.TextField()),
                ("made_at", models.DateTimeField()),
                (
                    "rule",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="parts", to="retention.rule"
                    ),
                ),
            ],
            options={"db_table": "retention_part"},
        ),
    ]

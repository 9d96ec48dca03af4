"""Canaries: which synthetic people were planted, and their tombstones."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("erasure", "0002_guards")]

    operations = [
        migrations.CreateModel(
            name="Canary",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("database", models.TextField()),
                ("subject_kind", models.TextField()),
                ("key", django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                ("fingerprint", models.TextField()),
                ("controller", models.TextField()),
                ("token", models.TextField()),
                ("planted_at", models.DateTimeField()),
                ("tombstone", models.BigIntegerField(null=True)),
            ],
            options={
                "db_table": "erasure_canary",
                "indexes": [models.Index(models.F("database"), models.F("planted_at"), name="erasure_canary_database")],
            },
        ),
    ]

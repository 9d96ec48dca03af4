"""Refusals are documented."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("controllers", "0002_clone")]

    operations = [
        migrations.CreateModel(
            name="Refusal",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("controller", models.CharField(max_length=64)),
                ("database", models.CharField(max_length=63)),
                ("action", models.CharField(max_length=32)),
                ("reason", models.CharField(max_length=40)),
                ("run", models.CharField(blank=True, default="", max_length=64)),
                ("actor", models.CharField(max_length=100)),
                ("at", models.DateTimeField()),
            ],
            options={
                "db_table": "controllers_refusal",
                "indexes": [models.Index(fields=["controller", "at"], name="controllers_refusal_time")],
            },
        ),
    ]

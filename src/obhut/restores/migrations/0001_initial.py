from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Certificate",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("run", models.CharField(max_length=64, unique=True)),
                ("database", models.CharField(max_length=63)),
                ("issued_at", models.DateTimeField()),
                ("holds", models.BooleanField()),
                ("sha256", models.CharField(max_length=64)),
                ("document", models.JSONField()),
                ("opened_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [models.Index(fields=["database", "-issued_at"], name="restores_certificate_recent")],
            },
        ),
    ]

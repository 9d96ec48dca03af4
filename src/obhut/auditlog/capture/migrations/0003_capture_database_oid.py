from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("capture", "0002_capture_looking"),
    ]

    operations = [
        # 0: not known; taken from the database at the next start.
        migrations.AddField(model_name="capture", name="database_oid", field=models.BigIntegerField(default=0), preserve_default=False),
    ]

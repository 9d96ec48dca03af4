from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("capture", "0001_initial"),
    ]

    operations = [
        migrations.AddField(model_name="capture", name="looking", field=models.JSONField(default=dict)),
    ]

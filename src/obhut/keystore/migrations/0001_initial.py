"""Tables of the key table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Holder",
            fields=[
                ("id", models.TextField(primary_key=True, serialize=False)),
                ("boot_id", models.TextField()),
                ("pid", models.IntegerField()),
                ("pid_started", models.BigIntegerField()),
                ("lease_until", models.DateTimeField()),
                ("seen", models.BigIntegerField()),
            ],
            options={
                "db_table": "keystore_holder",
            },
        ),
        migrations.CreateModel(
            name="Counter",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("destructions", models.BigIntegerField(default=0)),
                ("in_use", models.BooleanField(default=False)),
            ],
            options={
                "db_table": "keystore_counter",
                "constraints": [models.CheckConstraint(condition=models.Q(("id", 1)), name="keystore_counter_single")],
            },
        ),
        migrations.CreateModel(
            name="Epoch",
            fields=[
                ("pk", models.CompositePrimaryKey("controller", "number", blank=True, editable=False, primary_key=True, serialize=False)),
                ("controller", models.TextField()),
                ("number", models.IntegerField()),
                ("state", models.TextField()),
                ("wrapped", models.BinaryField(null=True)),
                ("opened_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(null=True)),
                ("destroy_after", models.DateTimeField(null=True)),
                ("destroyed_at", models.DateTimeField(null=True)),
                ("final_on", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "keystore_epoch",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["open", "closing", "closed", "destroyed"])), name="keystore_epoch_state"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("state", "destroyed"), ("destroyed_at__isnull", False), ("final_on__isnull", False), ("wrapped", None)
                            ),
                            models.Q(models.Q(("state", "destroyed"), _negated=True), ("destroyed_at", None), ("wrapped__isnull", False)),
                            _connector="OR",
                        ),
                        name="keystore_epoch_destroyed",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["open", "closing"]),
                            models.Q(("closed_at__isnull", False), ("destroy_after__isnull", False)),
                            _connector="OR",
                        ),
                        name="keystore_epoch_closed",
                    ),
                    models.UniqueConstraint(condition=models.Q(("state", "open")), fields=("controller",), name="keystore_epoch_open"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Owner",
            fields=[
                ("number", models.AutoField(primary_key=True, serialize=False)),
                ("controller", models.TextField()),
                ("lookup", models.BinaryField()),
                ("epoch", models.IntegerField()),
            ],
            options={
                "db_table": "keystore_owner",
                "constraints": [models.UniqueConstraint(fields=("controller",), name="keystore_owner_controller")],
            },
        ),
        migrations.CreateModel(
            name="Subject",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "owner", "fingerprint", "life", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("owner", models.IntegerField()),
                ("fingerprint", models.BinaryField()),
                ("life", models.SmallIntegerField()),
                ("epoch", models.IntegerField()),
                ("key_id", models.BinaryField(null=True)),
                ("wrapped", models.BinaryField(null=True)),
                ("began_at", models.DateTimeField(null=True)),
                ("destroyed_at", models.DateTimeField(null=True)),
                ("destruction", models.BigIntegerField(null=True)),
            ],
            options={
                "db_table": "keystore_subject",
                "indexes": [
                    models.Index(
                        models.F("destruction"), condition=models.Q(("destruction__isnull", False)), name="keystore_subject_destroyed"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("key_id",), name="keystore_subject_key_id"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("destroyed_at", None), ("destruction", None), ("key_id__isnull", False), ("wrapped__isnull", False)),
                            models.Q(("destroyed_at__isnull", False), ("destruction__isnull", False), ("wrapped", None)),
                            _connector="OR",
                        ),
                        name="keystore_subject_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("life__gte", 1), models.Q(("life", 1), ("began_at__isnull", False), _connector="OR")),
                        name="keystore_subject_life",
                    ),
                ],
            },
        ),
    ]

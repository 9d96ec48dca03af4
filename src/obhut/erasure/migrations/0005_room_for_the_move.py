"""Room in every page for all its tombstones to become effective: with 60 % filled, a third of a batch went through five indexes for it."""

from django.db import migrations


class Migration(migrations.Migration):
    """Fill less; a tombstone that has moved within its page leaves the room to the next, so the table ends no larger."""

    dependencies = [("erasure", "0004_confirm_cheaply")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE erasure_tombstone SET (fillfactor = 47)",
            "ALTER TABLE erasure_tombstone SET (fillfactor = 60)",
        )
    ]

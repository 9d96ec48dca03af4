"""A sweep makes thousands of cases at once: three indexes that no question uses go."""

import django.db.models.deletion
from django.db import migrations, models

_NO_PATTERNS = r"""
DO $$
DECLARE name text;
BEGIN
    -- Django's second index on a textual primary key, for LIKE; its name holds a hash.
    FOR name IN SELECT indexname FROM pg_indexes WHERE tablename = 'retention_case' AND indexname LIKE 'retention\_case\_id\_%\_like' LOOP
        EXECUTE format('DROP INDEX %I', name);
    END LOOP;
END $$;
"""


class Migration(migrations.Migration):
    """Drop them."""

    dependencies = [("retention", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="case",
            name="rule",
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name="cases", to="retention.rule"),
        ),
        migrations.RunSQL(_NO_PATTERNS, migrations.RunSQL.noop),
    ]

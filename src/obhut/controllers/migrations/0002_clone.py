"""Instructions may permit masked copies for tests."""

from django.db import migrations, models

_ACTIONS = ["erase", "anonymise", "restore", "restore_controller", "restore_subject", "export", "backup", "canary", "clone"]


class Migration(migrations.Migration):
    dependencies = [("controllers", "0001_initial")]

    operations = [
        migrations.RemoveConstraint(model_name="instruction", name="controllers_instruction_actions"),
        migrations.AddConstraint(
            model_name="instruction",
            constraint=models.CheckConstraint(
                condition=models.Q(("actions__contained_by", _ACTIONS), ("actions__len__gt", 0)), name="controllers_instruction_actions"
            ),
        ),
    ]

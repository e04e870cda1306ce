"""What every test needs.

e3nn 0.4.4 reads a table at import that newer torch must be told to trust; hypothesis must not take a busy
machine for a failure.
"""

import torch
from hypothesis import settings

torch.serialization.add_safe_globals([slice])
settings.register_profile("elign", deadline=None)
settings.load_profile("elign")

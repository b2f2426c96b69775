"""What "the model is not loaded" looks like in the words of backends without the contract.

Precision comes first: a false hit costs a reload, which takes minutes on a large model.
"""

from __future__ import annotations

import re

MODEL_NOT_LOADED = re.compile("model not loaded", re.IGNORECASE)

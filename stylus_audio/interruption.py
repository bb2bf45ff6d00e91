"""That the user has asked to stop.

A KeyboardInterrupt can be lost: Python drops one that is raised in a finaliser or in a library's callback. The flag
stays, and long work looks at it.
"""

from __future__ import annotations

import threading

interruption = threading.Event()

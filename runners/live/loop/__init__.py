"""The live loop: newest frame first, with limited age; in the foreground, in a thread or in a coroutine."""

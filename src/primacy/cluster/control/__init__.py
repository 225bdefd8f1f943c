"""What an operator sees and asks for: functions over a `Store`, for the commands and for HTTP."""

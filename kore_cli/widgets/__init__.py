"""Widgets shared by the dashboard and the chat."""

"""Exports models for servers, phones and other engines, and asks a server."""

"""Shipped models with their cards, terminology and pictures. Found through RefSegLib.resources."""

"""The reviewer's desk: contact sheet, buffers, Label Studio, clicks."""

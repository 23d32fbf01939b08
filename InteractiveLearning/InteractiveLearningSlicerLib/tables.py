"""Rows of words in a QTableWidget. Knows the widget, not Qt: `newItem(text)` makes a cell (qt.QTableWidgetItem)."""


def fill(table, rows, newItem):
    """Show these rows (tuples of texts) and nothing else; what is selected, and what is scrolled to, stays.

    Nobody is told of a change of the selection meanwhile.
    """
    if rows and texts(table) == rows:
        return
    blocked = table.blockSignals(True)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        for column, text in enumerate(cells):
            item = table.item(row, column)
            if item is None:
                table.setItem(row, column, newItem(text))
            elif item.text() != text:
                item.setText(text)
    for column in range(table.columnCount - 1):
        table.resizeColumnToContents(column)
    table.resizeRowsToContents()
    table.blockSignals(blocked)


def texts(table):
    """The rows that are shown."""
    return [
        tuple(table.item(row, column).text() for column in range(table.columnCount)) for row in range(table.rowCount)
    ]


def select(table, row):
    """Select a row, None for none, without telling anybody."""
    blocked = table.blockSignals(True)
    if row is None:
        table.clearSelection()
        table.setCurrentCell(-1, -1)
    elif table.currentRow() != row:
        table.selectRow(row)
    table.blockSignals(blocked)

# As much of Slicer as a Python-only extension meets when it is configured and installed.
set(Slicer_FOUND TRUE)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "qt-scripted-modules")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/CheckExtension.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/CheckExtension.cmake")
option(BUILD_TESTING "Configure the tests" ON)

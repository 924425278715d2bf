# SPDX-License-Identifier: Apache-2.0
# Installs headers, both libraries with their CMake packages and pkg-config file, the command and its data.
include(CheckLinkerFlag)
include(CMakePackageConfigHelpers)

# The standard library's templates have default visibility, and would be exported as weak symbols.
set(BRAGG_SYMBOLS "${CMAKE_CURRENT_SOURCE_DIR}/cmake/bragg.map")
check_linker_flag(CXX "LINKER:--version-script=${BRAGG_SYMBOLS}" BRAGG_HAS_VERSION_SCRIPT)
if(BRAGG_HAS_VERSION_SCRIPT)
  target_link_options(bragg_shared PRIVATE "LINKER:--version-script=${BRAGG_SYMBOLS}")
  set_property(TARGET bragg_shared APPEND PROPERTY LINK_DEPENDS "${BRAGG_SYMBOLS}")
endif()

install(
  DIRECTORY include/bragg "${CMAKE_CURRENT_BINARY_DIR}/include/bragg"
  DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "*.hpp")

# An export set each: who links the shared library needs none of the others' dependencies.
set(BRAGG_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/bragg")
foreach(kind shared static mpi nccl)
  install(TARGETS bragg_${kind} EXPORT bragg_${kind})
  install(EXPORT bragg_${kind} NAMESPACE bragg:: FILE bragg_${kind}.cmake DESTINATION "${BRAGG_PACKAGE_DIR}")
endforeach()
configure_package_config_file(cmake/braggConfig.cmake.in braggConfig.cmake
                              INSTALL_DESTINATION "${BRAGG_PACKAGE_DIR}")
write_basic_package_version_file(braggConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/braggConfig.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/braggConfigVersion.cmake" cmake/FindNCCL.cmake
        DESTINATION "${BRAGG_PACKAGE_DIR}")

install(FILES LICENSE NOTICE LICENSES/MIT-SorterHunter.txt DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/bragg")
# The pages that headers name.
install(DIRECTORY docs DESTINATION "${CMAKE_INSTALL_DOCDIR}" FILES_MATCHING PATTERN "*.md")

# Paths relative to the .pc file: the installed tree can be moved.
file(RELATIVE_PATH BRAGG_PREFIX_FROM_PC "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/bragg.pc.in bragg.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/bragg.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(TARGET bragg_cli)
  install(TARGETS bragg_cli)
  if(TARGET bragg_mpi_cli)
    install(TARGETS bragg_mpi_cli)
  endif()
  # For `bragg bench --against`, which looks beside the command.
  install(
    DIRECTORY bench/peers
    DESTINATION "${CMAKE_INSTALL_DATADIR}/bragg"
    FILES_MATCHING
    PATTERN "*.py"
    PATTERN "requirements.txt"
    PATTERN "__pycache__" EXCLUDE)
endif()

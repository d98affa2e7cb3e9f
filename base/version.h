/* version.h - the one home of the version number. */
#ifndef TLR_BASE_VERSION_H
#define TLR_BASE_VERSION_H

#define TLR_VERSION "0.1.0"
#define TLR_VERSION_DATE "November 21, 2026" /* of the man page */

#endif

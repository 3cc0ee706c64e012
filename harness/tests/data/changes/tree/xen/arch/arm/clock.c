/* A clock that strikes the bell. Written for the tests of xenverify. */

int bell_ring(unsigned int which);

static unsigned int hour;

void clock_tick(void)
{
    unsigned int i;

    hour = (hour + 1) % 12;

    for ( i = 0; i < hour; i++ )
        bell_ring(0);
}

unsigned int clock_hour(void)
{
    return hour;
}
